document.querySelector('#note').textContent = 'as it was uploaded'

import.meta.hot.accept()
